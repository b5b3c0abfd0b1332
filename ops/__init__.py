"""Runs InferFlux: settings, two command lines, the supervisor behind `inferflux up`, set-up."""
