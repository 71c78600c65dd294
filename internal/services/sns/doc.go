// Package sns is SNS: topics, subscriptions, and deliveries that survive the
// death of the server.
//
// Publish writes the message and one delivery row for each subscription that
// wants it, in one transaction; a controller works each row off and deletes
// it. What was acknowledged is therefore delivered at least once, with the
// same message id each time. deliver.go is the place to start reading.
//
// # States of a subscription
//
//	Pending    a token was sent to the endpoint; 48 hours to confirm it, then the row goes
//	Confirmed  gets what is published
//	Deleted    unsubscribed by somebody who gave no credentials; a new token went to the
//	           endpoint, with which it comes back; after 72 hours the row goes
//
// Protocols that are delivered: email, email-json, http, https. The others
// are refused by name.
package sns
