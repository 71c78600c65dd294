// Package codepipeline is CodePipeline: pipelines, their executions, and the
// actions that other services carry out.
//
// A pipeline is a row (codepipeline:pipeline, id its name), each execution
// another (codepipeline:execution, id "<pipeline>/<uuid>", Parent the pipeline,
// State the status). An execution carries the structure that it was started
// with, where it is, and every action's state. Its states:
//
//	InProgress -> Succeeded | Failed | Stopped | Superseded | Cancelled
//	InProgress -> Stopping -> Stopped        (StopPipelineExecution)
//	Failed, Stopped -> InProgress            (RetryStageExecution)
//
// One controller per pipeline decides over all of its executions together,
// because they compete for stages: it asks what changed at the sources, moves
// executions (plan.go, pure), and takes each action under way one step further
// (providers). A step is safe to repeat: the build or deployment that an
// action has started is found again by the action's id.
//
// Where to start reading:
//
//	plan.go         stages, locks, superseding, run orders, stopping: pure
//	engine.go       the controller
//	provider*.go    source, build, deploy, approval
//	variables.go    #{namespace.key}
//	handlers*.go    the API; validate.go what a structure may look like
package codepipeline
