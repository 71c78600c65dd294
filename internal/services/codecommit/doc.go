// Package codecommit keeps git repositories: CodeCommit's API over them, and
// git itself on the same endpoint at /v1/repos/NAME.
//
// A repository is a row and a bare git repository on disk. A branch is a row
// too, with the commit it points at, derived from git: it is brought up to
// date after each push, before the client is told that the push was taken,
// and once at start for a push that a crash interrupted. The row's event
// "Pushed" is what starts pipelines.
//
// Start reading at git.go for pushes, handlers.go for the API.
package codecommit
