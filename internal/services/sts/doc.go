// Package sts says who is calling and hands out temporary credentials. They
// are stateless (package keyring): no row is written, they survive restarts,
// and they cannot be revoked before they expire.
//
// A role can be assumed by everyone of its account and by Slipway's own
// services: trust policies are stored by IAM but not evaluated.
package sts
