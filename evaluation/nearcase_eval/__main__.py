"""`python -m nearcase_eval` is the `nearcase-eval` command."""

from nearcase_eval.eval_cli import main

if __name__ == "__main__":
    main()
