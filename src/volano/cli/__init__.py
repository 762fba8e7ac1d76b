"""The command line: one file a verb. Holds no rule; each verb calls the facade and prints."""
