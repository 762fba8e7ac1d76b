"""Public help for tests: conformance suites, a simulated disk. Nothing in Volano imports it at run time."""
