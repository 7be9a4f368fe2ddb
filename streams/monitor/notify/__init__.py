"""Messages about what is wrong, for those who run no Alertmanager: webhook, Slack-compatible, e-mail."""
