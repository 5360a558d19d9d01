"""Episodes: the step's rules, what is observed, records and pictures of them."""
