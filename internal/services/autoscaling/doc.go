// Package autoscaling is EC2 Auto Scaling: groups that keep as many
// instances as they want, spread over zones, and replace the ones that fail.
//
// One controller key is one group. engine.go observes (own rows, EC2's
// states, target health), plan.go decides purely, apply.go does one thing at
// a time in small transactions and the controller looks again. Everything
// that can happen to a group arrives as a store event, so nothing waits for
// a tick; what waits for time waits for a stored timestamp.
//
// # States of an instance
//
//	(intent)            a row that names the launch before RunInstances is called with its id as the token
//	Pending             EC2 gave the instance; it boots
//	Pending:Wait        it runs; the launching hooks have not all answered
//	Pending:Proceed     they have; next it is registered with every target group
//	InService           counts, takes traffic, is health-checked
//	Terminating         being deregistered; waits until its targets have drained
//	Terminating:Wait    the terminating hooks have not all answered
//	Terminating:Proceed EC2 is told to end it; the row goes when EC2 says terminated
//	EnteringStandby     being deregistered on the way to Standby
//	Standby             runs, does not count, is not checked
//	Detaching           being deregistered; afterwards it is not ours
package autoscaling
