"""The ledger: entries, certificates, the rules of money and of witnesses, and their audit."""
