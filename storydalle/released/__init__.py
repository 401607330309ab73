"""Files of other programs <-> our modules, as tables, in both directions."""
