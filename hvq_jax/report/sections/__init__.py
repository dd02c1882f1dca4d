"""The sections of the report on one run; each module has one, as a function of the findings."""
