"""Where artifacts come from and go to: local store, further stores, team store; and what their records say."""
