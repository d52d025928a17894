"""What bench.cuda stands on: who is compared on a GPU, the three times of a step, and rows that are told one by one."""
