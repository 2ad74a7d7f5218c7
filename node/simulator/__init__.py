"""Many real nodes in one process, in virtual time, with everything going wrong on purpose."""
