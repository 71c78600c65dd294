package codecommit

import (
	"slipway/internal/statechange"
	"slipway/internal/store"
)

// branchDetail goes into the events of branch rows.
type branchDetail struct {
	Before string `json:"before,omitempty"` // the commit it was at
	statechange.Detail
}

// referenceNote is the detail of AWS's event (CodeCommit user guide,
// "Monitoring CodeCommit events"). Who pushed is not known here: the rows
// follow git.
type referenceNote struct {
	Event          string `json:"event"`
	RepositoryName string `json:"repositoryName"`
	RepositoryID   string `json:"repositoryId"`
	ReferenceType  string `json:"referenceType"`
	ReferenceName  string `json:"referenceName"`
	FullName       string `json:"referenceFullName"`
	CommitID       string `json:"commitId,omitempty"`
	OldCommitID    string `json:"oldCommitId,omitempty"`
}

// changed tells that a branch came, moved, or went: before or after is empty.
func changed(row *store.Row[Repository], branch, before, after string) branchDetail {
	n := referenceNote{Event: "referenceUpdated", RepositoryName: row.ID, RepositoryID: row.Doc.ID, ReferenceType: "branch",
		ReferenceName: branch, FullName: "refs/heads/" + branch, CommitID: after, OldCommitID: before}
	switch {
	case before == "":
		n.Event = "referenceCreated"
	case after == "":
		n.Event = "referenceDeleted"
	}
	arn := "arn:aws:codecommit:" + row.Region + ":" + row.Account + ":" + row.ID
	d := branchDetail{Before: before}
	d.Add(statechange.Change{Source: "aws.codecommit", DetailType: "CodeCommit Repository State Change", Resource: arn, Resources: []string{arn}}, n, nil)
	return d
}
