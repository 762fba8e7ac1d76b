"""What authors declare, one noun a file. Frozen, pure; holds what was written and judges nothing.

Nothing here validates: `volano.compile` checks every definition and reports all mistakes at once, with file
and line. So what must be given may still be missing here (None). A definition is found as a module-level
value of the author's file; there is no registry and declaring has no effect.
"""
