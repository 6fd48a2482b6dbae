"""Results as files: tables, pages, plots, and the tables of the documentation."""
