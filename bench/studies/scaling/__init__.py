"""How far a suite's quality scales: the harness's own costs, measured, and large clusters, on paper."""
