"""The peers: what one would otherwise use on the same decisions. Never torch, never a policy.

From scratch: linear bandits on each account alone, VowpalWabbit, river. Fitted: a linear regression
whose prior over all actions comes from other accounts. Pooled: one model for all accounts. Beside
them what chooses without learning, and an oracle that is told what only a simulator knows.
"""
