"""All questions stand on these modules: workloads, contenders, rounds, and rows that become tables and figures."""
