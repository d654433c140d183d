"""What-if analysis: a second config, planned beside the live one; none of its operations is carried out."""
