// Package codebuild is CodeBuild: projects, and builds that run in a machine of
// their own.
//
// A build is a row (codebuild:build, id "<project>:<uuid>", Parent the project,
// State the build's status). It is IN_PROGRESS until its one final status:
//
//	IN_PROGRESS -> SUCCEEDED | FAILED | FAULT | TIMED_OUT | STOPPED
//
// The build runner (package agent/build) does the work inside the machine,
// detached from the server, and writes what happens to a file of events in
// there. The service follows that file and turns events into phases, log
// lines, stored artifacts and reports. The number of the last event that is
// accounted for is kept in the row, so that a server which was killed goes on
// reading where it left off, and the build never notices.
//
// Where to start reading:
//
//	service.go      dependencies, the controller: which builds to follow, stop, clean up
//	run.go          one build from QUEUED to COMPLETED
//	events.go       an event's effect on the row, pure
//	job.go          the row as the runner's job
//	door.go         what a machine may ask for by its token: credentials, the source
//	handlers*.go    the API; start.go makes a build of a project and overrides
package codebuild
