# Exports the library of $SERVER into $FOLDER/$NAME, then removes whole exports over the newest $KEEP.
# The same name again goes on with an export that was interrupted. Each of $TENANTS has an export of its own, with the
# token $TOKENS/TENANT where there is one, else by its name.
set -eu
export_to() {
  into=$1
  shift
  [ -e "$into/export.json" ] || nearcase library export "$into" --server "$SERVER" "$@"
}
if [ -z "${TENANTS:-}" ]; then
  export_to "$FOLDER/$NAME"
else
  for tenant in $TENANTS; do
    if [ -e "${TOKENS:-/client/tenants}/$tenant" ]; then
      export_to "$FOLDER/$NAME/$tenant" --token-file "${TOKENS:-/client/tenants}/$tenant"
    else
      export_to "$FOLDER/$NAME/$tenant" --tenant "$tenant"
    fi
  done
fi
touch "$FOLDER/$NAME/whole"
ls -1t "$FOLDER"/*/whole | tail -n "+$((KEEP + 1))" | while read -r old; do rm -rf "$(dirname "$old")"; done
# What an export left that was never ended; a day later nobody goes on with it.
find "$FOLDER" -mindepth 1 -maxdepth 1 -type d -mmin +1440 | while read -r old; do
  [ -e "$old/whole" ] || rm -rf "$old"
done
