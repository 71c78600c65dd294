package codecommit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/google/uuid"

	api "slipway/internal/api/codecommit"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/git"
	"slipway/internal/store"
)

func (s *Service) register(m *dispatch.Mux) {
	dispatch.Register(m, api.OpCreateRepository, s.createRepository)
	dispatch.Register(m, api.OpGetRepository, s.getRepository)
	dispatch.Register(m, api.OpBatchGetRepositories, s.batchGetRepositories)
	dispatch.Register(m, api.OpListRepositories, s.listRepositories)
	dispatch.Register(m, api.OpDeleteRepository, s.deleteRepository)
	dispatch.Register(m, api.OpUpdateRepositoryDescription, s.updateDescription)
	dispatch.Register(m, api.OpUpdateDefaultBranch, s.updateDefaultBranch)
	dispatch.Register(m, api.OpGetBranch, s.getBranch)
	dispatch.Register(m, api.OpListBranches, s.listBranches)
	dispatch.Register(m, api.OpCreateBranch, s.createBranch)
	dispatch.Register(m, api.OpDeleteBranch, s.deleteBranch)
	dispatch.Register(m, api.OpGetCommit, s.getCommit)
	dispatch.Register(m, api.OpGetFile, s.getFile)
	dispatch.Register(m, api.OpGetFolder, s.getFolder)
	dispatch.Register(m, api.OpGetBlob, s.getBlob)
	dispatch.Register(m, api.OpListTagsForResource, s.listTags)
	dispatch.Register(m, api.OpTagResource, s.tag)
	dispatch.Register(m, api.OpUntagResource, s.untag)
}

func noRepository(name string) error {
	return awserr.New("RepositoryDoesNotExistException", "%s does not exist", name)
}

func (s *Service) arn(account, region, name string) string {
	return "arn:aws:codecommit:" + region + ":" + account + ":" + name
}

func (s *Service) metadata(row *store.Row[Repository]) *api.RepositoryMetadata {
	m := &api.RepositoryMetadata{
		AccountId: new(row.Account), RepositoryId: new(row.Doc.ID), RepositoryName: new(row.ID),
		CreationDate: new(row.Created), LastModifiedDate: new(row.Doc.Modified),
		CloneUrlHttp: new(s.deps.CloneURL() + Prefix + row.ID), Arn: new(s.arn(row.Account, row.Region, row.ID)),
	}
	if row.Doc.Description != "" {
		m.RepositoryDescription = new(row.Doc.Description)
	}
	if row.Doc.DefaultBranch != "" {
		m.DefaultBranch = new(row.Doc.DefaultBranch)
	}
	if row.Doc.KMSKeyID != "" {
		m.KmsKeyId = new(row.Doc.KMSKeyID)
	}
	return m
}

func (s *Service) createRepository(ctx context.Context, in *api.CreateRepositoryInput) (*api.CreateRepositoryOutput, error) {
	id, name := caller.From(ctx), ptr.Value(in.RepositoryName)
	if !nameRule.MatchString(name) || strings.HasSuffix(name, ".git") {
		return nil, awserr.New("InvalidRepositoryNameException", "The repository name %q is not valid: it takes 1 to 100 letters, digits, periods, underscores and dashes, and must not end in .git.", name)
	}
	doc := Repository{ID: uuid.NewString(), Description: ptr.Value(in.RepositoryDescription), KMSKeyID: ptr.Value(in.KmsKeyId), Tags: in.Tags, Modified: s.deps.Clock.Now()}
	// The directory comes first: a row without it would be a broken
	// repository, a directory without a row is removed at the next start.
	dir := filepath.Join(s.deps.Dir, doc.ID+".git")
	if _, err := git.Init(ctx, dir); err != nil {
		return nil, err
	}
	var row *store.Row[Repository]
	err := s.deps.Store.Update(ctx, func(tx store.Tx) (err error) {
		row, err = repositories.Insert(tx, id.Account, id.Region, name, doc, "Created", nil)
		return err
	})
	if err != nil {
		os.RemoveAll(dir)
		if errors.Is(err, store.ErrExists) {
			return nil, awserr.New("RepositoryNameExistsException", "Repository named %s already exists", name)
		}
		return nil, err
	}
	return &api.CreateRepositoryOutput{RepositoryMetadata: s.metadata(row)}, nil
}

func (s *Service) getRepository(ctx context.Context, in *api.GetRepositoryInput) (*api.GetRepositoryOutput, error) {
	row, err := s.findFor(ctx, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	return &api.GetRepositoryOutput{RepositoryMetadata: s.metadata(row)}, nil
}

// findFor finds a repository of the caller's account and region.
func (s *Service) findFor(ctx context.Context, name *string) (*store.Row[Repository], error) {
	id := caller.From(ctx)
	return s.find(ctx, id.Account, id.Region, ptr.Value(name))
}

func (s *Service) batchGetRepositories(ctx context.Context, in *api.BatchGetRepositoriesInput) (*api.BatchGetRepositoriesOutput, error) {
	out := &api.BatchGetRepositoriesOutput{}
	for _, name := range in.RepositoryNames {
		row, err := s.findFor(ctx, &name)
		switch {
		case awserr.Is(err, "RepositoryDoesNotExistException"):
			out.RepositoriesNotFound = append(out.RepositoriesNotFound, name)
		case err != nil:
			return nil, err
		default:
			out.Repositories = append(out.Repositories, *s.metadata(row))
		}
	}
	return out, nil
}

// pageSize is how many names a list answers at once.
const pageSize = 1000

func (s *Service) listRepositories(ctx context.Context, in *api.ListRepositoriesInput) (*api.ListRepositoriesOutput, error) {
	id := caller.From(ctx)
	rows, err := repositories.Select(ctx, s.deps.Store, store.Query{Account: id.Account, Region: id.Region})
	if err != nil {
		return nil, err
	}
	byDate, descending := ptr.Value(in.SortBy) == "lastModifiedDate", ptr.Value(in.Order) == "descending"
	sort.SliceStable(rows, func(i, j int) bool {
		if descending {
			i, j = j, i
		}
		if byDate {
			return rows[i].Doc.Modified.Before(rows[j].Doc.Modified)
		}
		return rows[i].ID < rows[j].ID
	})
	start := 0
	if token := ptr.Value(in.NextToken); token != "" {
		for start < len(rows) && rows[start].Doc.ID != token {
			start++
		}
		if start == len(rows) {
			return nil, awserr.New("InvalidContinuationTokenException", "The continuation token is not valid.")
		}
	}
	out := &api.ListRepositoriesOutput{Repositories: []api.RepositoryNameIdPair{}}
	for i, row := range rows[start:] {
		if i == pageSize {
			out.NextToken = new(row.Doc.ID)
			break
		}
		out.Repositories = append(out.Repositories, api.RepositoryNameIdPair{RepositoryId: new(row.Doc.ID), RepositoryName: new(row.ID)})
	}
	return out, nil
}

func (s *Service) deleteRepository(ctx context.Context, in *api.DeleteRepositoryInput) (*api.DeleteRepositoryOutput, error) {
	row, err := s.findFor(ctx, in.RepositoryName)
	if awserr.Is(err, "RepositoryDoesNotExistException") {
		return &api.DeleteRepositoryOutput{}, nil // AWS answers the same, without an id
	}
	if err != nil {
		return nil, err
	}
	err = s.deps.Store.Update(ctx, func(tx store.Tx) error {
		known, err := branches.List(tx, store.Query{Account: row.Account, Region: row.Region, Parent: row.ID})
		if err != nil {
			return err
		}
		for _, b := range known {
			if err := branches.Delete(tx, b, "Deleted", nil); err != nil {
				return err
			}
		}
		fresh, err := repositories.Get(tx, row.Account, row.Region, row.ID)
		if err != nil {
			return err
		}
		return repositories.Delete(tx, fresh, "Deleted", nil)
	})
	if err != nil {
		return nil, err
	}
	s.removeOrphan(ctx, row.Doc.ID)
	return &api.DeleteRepositoryOutput{RepositoryId: new(row.Doc.ID)}, nil
}

// removeOrphan removes a repository's directory that no row names.
func (s *Service) removeOrphan(_ context.Context, id string) {
	if err := os.RemoveAll(filepath.Join(s.deps.Dir, id+".git")); err != nil {
		s.deps.Log.Warn("codecommit: directory of a deleted repository stays", "id", id, "error", err)
	}
}

func (s *Service) updateDescription(ctx context.Context, in *api.UpdateRepositoryDescriptionInput) (*api.UpdateRepositoryDescriptionOutput, error) {
	err := s.change(ctx, in.RepositoryName, func(r *Repository) { r.Description = ptr.Value(in.RepositoryDescription) })
	return &api.UpdateRepositoryDescriptionOutput{}, err
}

func (s *Service) change(ctx context.Context, name *string, fn func(*Repository)) error {
	id := caller.From(ctx)
	_, err := repositories.Modify(ctx, s.deps.Store, id.Account, id.Region, ptr.Value(name), "Changed", func(r *Repository) error {
		fn(r)
		r.Modified = s.deps.Clock.Now()
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return noRepository(ptr.Value(name))
	}
	return err
}

func (s *Service) updateDefaultBranch(ctx context.Context, in *api.UpdateDefaultBranchInput) (*api.UpdateDefaultBranchOutput, error) {
	row, err := s.findFor(ctx, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if _, err := s.branch(ctx, row, ptr.Value(in.DefaultBranchName)); err != nil {
		return nil, err
	}
	if err := s.repo(row).SetHead(ctx, ptr.Value(in.DefaultBranchName)); err != nil {
		return nil, err
	}
	err = s.change(ctx, in.RepositoryName, func(r *Repository) { r.DefaultBranch = ptr.Value(in.DefaultBranchName) })
	return &api.UpdateDefaultBranchOutput{}, err
}

func (s *Service) branch(ctx context.Context, row *store.Row[Repository], name string) (*store.Row[Branch], error) {
	b, err := branches.Find(ctx, s.deps.Store, row.Account, row.Region, row.ID+"/"+name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, awserr.New("BranchDoesNotExistException", "The branch %s does not exist in the repository %s.", name, row.ID)
	}
	return b, err
}

func (s *Service) getBranch(ctx context.Context, in *api.GetBranchInput) (*api.GetBranchOutput, error) {
	row, err := s.findFor(ctx, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if ptr.Value(in.BranchName) == "" {
		return nil, awserr.New("BranchNameRequiredException", "A branch name is required, but was not specified.")
	}
	b, err := s.branch(ctx, row, *in.BranchName)
	if err != nil {
		return nil, err
	}
	return &api.GetBranchOutput{Branch: &api.BranchInfo{BranchName: new(b.Doc.Name), CommitId: new(b.Doc.Commit)}}, nil
}

func (s *Service) listBranches(ctx context.Context, in *api.ListBranchesInput) (*api.ListBranchesOutput, error) {
	row, err := s.findFor(ctx, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	q := store.Query{Account: row.Account, Region: row.Region, Parent: row.ID, Limit: pageSize + 1}
	if token := ptr.Value(in.NextToken); token != "" {
		q.After = row.ID + "/" + token
	}
	rows, err := branches.Select(ctx, s.deps.Store, q)
	if err != nil {
		return nil, err
	}
	out := &api.ListBranchesOutput{Branches: []string{}}
	if len(rows) > pageSize {
		rows = rows[:pageSize]
		out.NextToken = new(rows[pageSize-1].Doc.Name)
	}
	for _, b := range rows {
		out.Branches = append(out.Branches, b.Doc.Name)
	}
	return out, nil
}

func (s *Service) createBranch(ctx context.Context, in *api.CreateBranchInput) (*api.CreateBranchOutput, error) {
	row, err := s.findFor(ctx, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	name := ptr.Value(in.BranchName)
	if !git.ValidBranch(ctx, name) {
		return nil, awserr.New("InvalidBranchNameException", "The branch name %q is not valid.", name)
	}
	if _, err := s.branch(ctx, row, name); err == nil {
		return nil, awserr.New("BranchNameExistsException", "The branch %s already exists in the repository %s.", name, row.ID)
	}
	if _, err := s.repo(row).Commit(ctx, ptr.Value(in.CommitId)); err != nil {
		return nil, awserr.New("CommitDoesNotExistException", "The commit %s does not exist in the repository %s.", ptr.Value(in.CommitId), row.ID)
	}
	if err := s.repo(row).UpdateBranch(ctx, name, *in.CommitId, ""); err != nil {
		return nil, err
	}
	return &api.CreateBranchOutput{}, s.sync(ctx, row)
}

func (s *Service) deleteBranch(ctx context.Context, in *api.DeleteBranchInput) (*api.DeleteBranchOutput, error) {
	row, err := s.findFor(ctx, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	name := ptr.Value(in.BranchName)
	if name == row.Doc.DefaultBranch {
		return nil, awserr.New("DefaultBranchCannotBeDeletedException", "The branch %s is the default branch of %s; make another one the default first.", name, row.ID)
	}
	b, err := s.branch(ctx, row, name)
	if awserr.Is(err, "BranchDoesNotExistException") {
		return &api.DeleteBranchOutput{}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := s.repo(row).UpdateBranch(ctx, name, "", b.Doc.Commit); err != nil {
		return nil, awserr.New("ConcurrentReferenceUpdateException", "The branch %s moved while it was being deleted; try again.", name).WithCause(err)
	}
	return &api.DeleteBranchOutput{DeletedBranch: &api.BranchInfo{BranchName: new(name), CommitId: new(b.Doc.Commit)}}, s.sync(ctx, row)
}

func userInfo(p git.Person) *api.UserInfo {
	return &api.UserInfo{Name: new(p.Name), Email: new(p.Email), Date: new(p.Raw)}
}

func (s *Service) getCommit(ctx context.Context, in *api.GetCommitInput) (*api.GetCommitOutput, error) {
	row, err := s.findFor(ctx, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	c, err := s.repo(row).Commit(ctx, ptr.Value(in.CommitId))
	if err != nil {
		return nil, awserr.New("CommitIdDoesNotExistException", "The commit %s does not exist in the repository %s.", ptr.Value(in.CommitId), row.ID)
	}
	return &api.GetCommitOutput{Commit: &api.Commit{
		CommitId: new(c.ID), TreeId: new(c.Tree), Parents: append([]string{}, c.Parents...), Message: new(c.Message),
		Author: userInfo(c.Author), Committer: userInfo(c.Committer), AdditionalData: new(""),
	}}, nil
}

// at finds the commit that a file or folder request means: the given one, or
// the tip of the default branch.
func (s *Service) at(ctx context.Context, name, spec *string) (*git.Repo, string, error) {
	row, err := s.findFor(ctx, name)
	if err != nil {
		return nil, "", err
	}
	what := ptr.Value(spec)
	if what == "" {
		what = row.Doc.DefaultBranch
	}
	id, err := s.repo(row).Resolve(ctx, strings.TrimPrefix(what, "refs/heads/"))
	if err != nil {
		return nil, "", awserr.New("CommitDoesNotExistException", "The specifier %q names no commit in the repository %s.", what, row.ID)
	}
	return s.repo(row), id, nil
}

// maxFile is how large a file GetFile and GetBlob answer, as on AWS.
const maxFile = 6 << 20

var fileModes = map[string]string{"100644": "NORMAL", "100755": "EXECUTABLE", "120000": "SYMLINK"}

func (s *Service) getFile(ctx context.Context, in *api.GetFileInput) (*api.GetFileOutput, error) {
	repo, commit, err := s.at(ctx, in.RepositoryName, in.CommitSpecifier)
	if err != nil {
		return nil, err
	}
	path := strings.Trim(ptr.Value(in.FilePath), "/")
	e, err := repo.Lookup(ctx, commit, path)
	if err != nil || e.Type != "blob" {
		return nil, awserr.New("FileDoesNotExistException", "The file %s does not exist in commit %s.", path, commit)
	}
	content, err := repo.Blob(ctx, e.ID, maxFile)
	if err != nil {
		return nil, awserr.New("FileTooLargeException", "The file %s has %d bytes; at most %d are answered. Clone the repository instead.", path, e.Size, maxFile)
	}
	return &api.GetFileOutput{CommitId: new(commit), BlobId: new(e.ID), FilePath: new(path), FileMode: new(fileModes[e.Mode]), FileSize: new(int64(len(content))), FileContent: content}, nil
}

func (s *Service) getBlob(ctx context.Context, in *api.GetBlobInput) (*api.GetBlobOutput, error) {
	row, err := s.findFor(ctx, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	content, err := s.repo(row).Blob(ctx, ptr.Value(in.BlobId), maxFile)
	if errors.Is(err, git.ErrNotFound) {
		return nil, awserr.New("BlobIdDoesNotExistException", "The blob %s does not exist in the repository %s.", ptr.Value(in.BlobId), row.ID)
	}
	if err != nil {
		return nil, awserr.New("FileTooLargeException", "%v", err)
	}
	return &api.GetBlobOutput{Content: content}, nil
}

func (s *Service) getFolder(ctx context.Context, in *api.GetFolderInput) (*api.GetFolderOutput, error) {
	repo, commit, err := s.at(ctx, in.RepositoryName, in.CommitSpecifier)
	if err != nil {
		return nil, err
	}
	path := strings.Trim(ptr.Value(in.FolderPath), "/")
	entries, err := repo.Tree(ctx, commit, path, false)
	if err != nil {
		return nil, awserr.New("FolderDoesNotExistException", "The folder %s does not exist in commit %s.", path, commit)
	}
	out := &api.GetFolderOutput{CommitId: new(commit), FolderPath: new(path)}
	for _, e := range entries {
		relative := strings.TrimPrefix(strings.TrimPrefix(e.Path, path), "/")
		switch {
		case e.Type == "tree":
			out.SubFolders = append(out.SubFolders, api.Folder{TreeId: new(e.ID), AbsolutePath: new(e.Path), RelativePath: new(relative)})
		case e.Type == "commit":
			out.SubModules = append(out.SubModules, api.SubModule{CommitId: new(e.ID), AbsolutePath: new(e.Path), RelativePath: new(relative)})
		case e.Mode == "120000":
			out.SymbolicLinks = append(out.SymbolicLinks, api.SymbolicLink{BlobId: new(e.ID), AbsolutePath: new(e.Path), RelativePath: new(relative), FileMode: new("SYMLINK")})
		default:
			out.Files = append(out.Files, api.File{BlobId: new(e.ID), AbsolutePath: new(e.Path), RelativePath: new(relative), FileMode: new(fileModes[e.Mode])})
		}
	}
	return out, nil
}

// tagged finds the repository that an ARN names.
func (s *Service) tagged(ctx context.Context, arn *string) (string, error) {
	parts := strings.Split(ptr.Value(arn), ":")
	if len(parts) != 6 || parts[2] != "codecommit" {
		return "", awserr.New("InvalidResourceArnException", "The value for the resource ARN is not valid: %s", ptr.Value(arn))
	}
	_, err := s.findFor(ctx, &parts[5])
	return parts[5], err
}

func (s *Service) listTags(ctx context.Context, in *api.ListTagsForResourceInput) (*api.ListTagsForResourceOutput, error) {
	name, err := s.tagged(ctx, in.ResourceArn)
	if err != nil {
		return nil, err
	}
	row, err := s.findFor(ctx, &name)
	if err != nil {
		return nil, err
	}
	return &api.ListTagsForResourceOutput{Tags: row.Doc.Tags}, nil
}

func (s *Service) tag(ctx context.Context, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	name, err := s.tagged(ctx, in.ResourceArn)
	if err != nil {
		return nil, err
	}
	return &api.TagResourceOutput{}, s.change(ctx, &name, func(r *Repository) {
		if r.Tags == nil {
			r.Tags = map[string]string{}
		}
		for k, v := range in.Tags {
			r.Tags[k] = v
		}
	})
}

func (s *Service) untag(ctx context.Context, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	name, err := s.tagged(ctx, in.ResourceArn)
	if err != nil {
		return nil, err
	}
	return &api.UntagResourceOutput{}, s.change(ctx, &name, func(r *Repository) {
		for _, k := range in.TagKeys {
			delete(r.Tags, k)
		}
	})
}
