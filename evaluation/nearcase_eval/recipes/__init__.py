"""Recipes: the files of a public data set, as its providers distribute them, to a cohort."""
