"""Notifications of problems for deployments without Alertmanager: webhook, Slack-compatible, e-mail."""
