// Package iam keeps who may call: users, groups, access keys, roles, instance
// profiles and policies. It implements sigv4.Keys, so it is also the place
// where signatures find their secrets.
//
// Policies are stored, versioned, attached and validated as JSON, but they
// are NOT evaluated: whoever holds valid credentials may do everything in
// their account. Simulate* answers 501 for the same reason. AWS's own managed
// policies can be attached by their ARN; their documents are not kept, and
// asking for one answers 501.
//
// Long-lived access keys are rows whose secret is sealed with the server key.
// Temporary ones (ASIA...) are no rows at all: see package keyring. The root
// credentials lie in a file of mode 0600 in the data directory.
//
// Start reading at entity.go: users, groups and roles are one document type,
// and what can be done with all three is written once.
package iam
