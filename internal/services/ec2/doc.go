// Package ec2 is Amazon EC2 as far as Slipway hosts it: instances that really
// boot through machine.Driver, launch templates, images, the default VPC of
// each region, security groups, key pairs and tags.
//
// # States of an instance
//
//	RunInstances      -> pending        a row and an address; the controller boots it
//	pending           -> running        the machine's init answered
//	pending           -> terminated     the boot failed; StateReason says why
//	running           -> stopping       StopInstances, or it stopped by itself
//	stopping          -> stopped        the machine is down, its disk is kept
//	stopped           -> pending        StartInstances
//	any of the above  -> shutting-down  TerminateInstances
//	running           -> terminated     the machine died: told at once, so that a group replaces it at once
//	shutting-down     -> terminated     everything is given back but the row
//	terminated        -> (gone)         an hour later
//
// # Where to start reading
//
// run.go turns a request into rows; engine.go makes the machines agree with
// the rows and is the only caller of the driver's changing methods; plan.go
// says, purely, what it does; package imds serves the metadata.
//
// What has no row: the default VPC and its subnets exist in every region,
// with ids derived from account and region, see network.go.
package ec2
