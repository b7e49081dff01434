"""Where artifacts come from and go to: own store, other stores, the team; and what their records say."""
