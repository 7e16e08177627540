"""Audits of a node's file: each module looks at one kind of agreement, in steps that each read one short snapshot."""
