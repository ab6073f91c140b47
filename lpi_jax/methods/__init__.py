"""Continual methods: what is trained per task and how it enters the frozen backbone."""
