"""The processes behind `volano serve`: applier, committer, workers, and who watches over them."""
