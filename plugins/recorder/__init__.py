"""The producer's side: what records the steps and pictures of environments into a spool. No asyncio, no kernel."""
