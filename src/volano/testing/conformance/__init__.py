"""Suites that prove an adapter: one module a protocol, one class a suite.

Subclass a suite in a test module and name the adapter; pytest does the rest. Every test's docstring is the rule that
it proves. The module needs pytest, which Volano does not install.

    from volano.testing.conformance.journal import JournalConformance

    class TestMyJournal(JournalConformance):
        writer = "my_package.journal:MyWriter"     # called with (folder, writer name)
        reader = "my_package.journal:MyReader"     # called with (folder)

Factories are addresses (`module:name`) because some rules are proved in a process of their own, which is killed.
"""
