// Package codestarnotifications is CodeStar Notifications: rules that send
// what happens to a pipeline, a build project, a deployment application or a
// repository to SNS topics.
//
// The services tell their state changes in the events of their rows (package
// statechange). One reader goes through these events with a durable cursor.
// For each change that a rule asks for it writes one row per target into an
// outbox, in the transaction that moves the cursor: no change is lost or taken
// twice, whenever the server dies. A controller works the outbox off and
// deletes each row when SNS has acknowledged the message; a death between the
// two publishes it once more.
//
// # States of a target
//
//	ACTIVE       subscribed, or the last message was taken
//	UNREACHABLE  the last message was refused: no such topic, or its policy does not let
//	             codestar-notifications.amazonaws.com publish; the next message is tried again
//
// Where to start reading:
//
//	catalog.go   event types, and which of them a change is
//	deliver.go   the reader and the outbox
//	handlers*.go the API
package codestarnotifications
