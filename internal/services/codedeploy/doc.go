// Package codedeploy deploys revisions to instances: AWS's public CodeDeploy
// API, and the host-agent service that the agents inside the instances poll.
//
// A deployment is a row (codedeploy:deployment) with one row per instance
// (codedeploy:target, id "<deployment>/<instance>"). Its states:
//
//	Created -> InProgress -> Succeeded | Failed | Stopped
//
// A target walks through its list of lifecycle events. Most events are
// commands for the agent on the instance; BlockTraffic and AllowTraffic are
// the server's own work against the target groups.
//
// Where to start reading:
//
//	lifecycle.go   one target: its events, pure
//	plan.go        the fleet: which targets may start, when it ends, pure
//	engine*.go     the controller that observes, plans and applies
//	agentapi.go    what the host agents call; hub.go wakes their long polls
//	groups.go      Auto Scaling hooks, and the deployments to new instances
//	handlers_*.go  the public API
//	narrate.go     deployment logs and SNS triggers, from the event stream
//
// A command's completion and the next command's readiness are one
// transaction, and a long poll that waits for the host is woken by it: an
// event follows the last one within milliseconds. Nothing is remembered only
// in memory, so the server may die between any two transactions.
package codedeploy
