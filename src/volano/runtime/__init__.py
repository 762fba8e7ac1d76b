"""Every effect: configuration, loading, assembly, applying plans, draining, jobs, the clock."""
