# Writes proc.json: what R's pROC says of synthetic scores (their generator is here and in tests/test_eval_proc.py) and
# of its own aSAH data, whose rows are GPL and are not kept; numbers only.
#   Rscript make_expected.R proc.json
suppressMessages(library(pROC))
data(aSAH)

# Park and Miller's minimal standard generator: whole numbers, exact in doubles, the same in any language.
draws <- function(seed, n) {
  x <- numeric(n)
  for (i in seq_len(n)) { seed <- (16807 * seed) %% 2147483647; x[i] <- seed }
  x
}
synthetic <- function(seed, n, levels) {
  y <- as.integer(draws(seed, n) %% 100 < 35)
  noise <- draws(seed + 1, n) %% levels
  other <- draws(seed + 2, n) %% levels
  third <- draws(seed + 3, n) %% levels
  shift <- levels %/% 5
  list(y = y, a = noise + 2 * shift * y, b = other + shift * y, c = third)
}
sets <- list(fine = synthetic(11, 240, 100000), tied = synthetic(12, 240, 6), small = synthetic(13, 30, 50))
sets$aSAH <- list(y = as.integer(aSAH$outcome == "Poor"), a = as.numeric(aSAH$wfns), b = aSAH$s100b, c = aSAH$ndka)

number <- function(x) if (is.na(x)) "null" else sprintf("%.17g", x)
row <- function(x) paste0("[", paste(vapply(as.numeric(x), number, ""), collapse = ", "), "]")
describe <- function(set) {
  curves <- lapply(set[c("a", "b", "c")], function(s)
    roc(set$y, s, levels = c(0, 1), direction = "<", quiet = TRUE))
  interval <- vapply(curves, function(r) row(ci.auc(r, method = "delong")), "")
  partial <- vapply(curves, function(r)
    number(auc(r, partial.auc = c(1, 0.9), partial.auc.focus = "specificity", partial.auc.correct = TRUE,
               allow.invalid.partial.auc.correct = TRUE)), "")
  test <- function(i, j) {
    t <- roc.test(curves[[i]], curves[[j]], method = "delong", paired = TRUE)
    row(c(t$statistic, t$p.value, cov(curves[[i]], curves[[j]])))
  }
  paste0('{"ci": [', paste(interval, collapse = ", "), '],\n   "partial": [', paste(partial, collapse = ", "),
         '],\n   "paired": [', paste(test(1, 2), test(1, 3), test(2, 3), sep = ", "), "]}")
}
body <- vapply(sets, describe, "")
youden <- coords(roc(sets$tied$y, sets$tied$a, levels = c(0, 1), direction = "<", quiet = TRUE), "best",
                 best.method = "youden", ret = c("sensitivity", "specificity"), transpose = FALSE)
lines <- c(paste0(' "', names(body), '": ', body), paste0(' "youden_tied": ', row(unlist(youden[1, ]))),
           paste0(' "pROC": "', packageVersion("pROC"), '"'))
writeLines(c("{", paste(lines, collapse = ",\n"), "}"), commandArgs(trailingOnly = TRUE)[1])
