// Package elbv2 is the control plane of Application Load Balancers. The data
// plane is the `slipway lb` process (package lb), which needs nothing from
// here to go on serving.
//
// Load balancers, listeners, rules, target groups and targets are rows. Every
// change of one makes the engine send the whole configuration to the lb
// process, coalesced and at once; what the process reports of health and
// draining goes into the target rows, whose events Auto Scaling and
// CodeDeploy follow:
//
//	initial -> healthy <-> unhealthy    as the health checks go
//	any -> draining                     DeregisterTargets: no new requests
//	row deleted, event "Drained"        no request is left in flight, or the
//	                                    deregistration delay is over
//
// On AWS a target shows "draining" for the whole delay even when it is idle.
// Here it is gone as soon as it is drained, so that nobody waits for nothing.
//
// Start reading at engine.go.
package elbv2
