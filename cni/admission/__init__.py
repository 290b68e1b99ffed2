"""The webhook that API servers ask: AdmissionReview over HTTPS."""
