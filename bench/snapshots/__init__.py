"""This package asks what an ensemble of the snapshots of one run is worth."""
