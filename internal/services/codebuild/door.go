package codebuild

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	api "slipway/internal/api/codebuild"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// The door is what a build's machine reaches of the service itself: the
// credentials of its role, where AWS's SDKs look for those of a container, and
// sources that are not in a bucket. The token in the path is the key to it.
const (
	doorAddress     = "169.254.170.2:80"
	credentialsPath = "/v2/credentials/"
	sourcePath      = "/v2/source/"
)

func (s *Service) door() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+credentialsPath+"{token}", s.serveCredentials)
	mux.HandleFunc("GET "+sourcePath+"{token}/{source...}", s.serveSource)
	return mux
}

// visitor is the running build whose token it is.
func (s *Service) visitor(w http.ResponseWriter, r *http.Request) *buildRow {
	door, err := doors.Find(r.Context(), s.deps.Store, "", "", r.PathValue("token"))
	var row *buildRow
	if err == nil {
		row, err = builds.Find(r.Context(), s.deps.Store, door.Doc.Account, door.Doc.Region, door.Doc.Build)
	}
	if err == nil && !row.Doc.Complete() {
		return row
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		s.deps.Log.Error("build's token not looked up", "error", err)
		http.Error(w, "the token could not be looked up", http.StatusInternalServerError)
		return nil
	}
	http.Error(w, "no build under way has this token", http.StatusForbidden)
	return nil
}

func (s *Service) serveCredentials(w http.ResponseWriter, r *http.Request) {
	row := s.visitor(w, r)
	if row == nil {
		return
	}
	c, err := s.roleKeys(r.Context(), row)
	if err != nil || c == nil {
		http.Error(w, "the build's role gives no credentials", http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{ // the client is gone: nobody to tell
		"AccessKeyId": ptr.Value(c.AccessKeyId), "SecretAccessKey": ptr.Value(c.SecretAccessKey), "Token": ptr.Value(c.SessionToken),
		"Expiration": c.Expiration.UTC().Format(time.RFC3339), "RoleArn": ptr.Value(row.Doc.API.ServiceRole),
	})
}

// serveSource sends a source of type CODECOMMIT as a ZIP. It is made whole
// before the first byte is sent, so that a failure has a status.
func (s *Service) serveSource(w http.ResponseWriter, r *http.Request) {
	row := s.visitor(w, r)
	if row == nil {
		return
	}
	src, commit := pickSource(&row.Doc, r.PathValue("source"))
	if src == nil || s.deps.Repositories == nil {
		http.Error(w, "the build has no such source", http.StatusNotFound)
		return
	}
	f, err := os.CreateTemp("", "slipway-source-")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err = s.deps.Repositories.Archive(r.Context(), row.Account, row.Region, repositoryName(src), commit, f); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		status := http.StatusInternalServerError
		if awserr.As(err) != nil {
			status = http.StatusNotFound
		}
		http.Error(w, fmt.Sprintf("the source could not be read: %v", err), status)
		return
	}
	w.Header().Set("Content-Type", "application/zip")
	_, _ = io.Copy(w, f) // the client is gone: nobody to tell
}

// pickSource finds the source of that identifier ("" is the primary one) and
// the commit of it to build.
func pickSource(b *Build, identifier string) (*api.ProjectSource, string) {
	if identifier == "" {
		if ptr.Value(b.API.Source.Type) != api.SourceTypeCodecommit {
			return nil, ""
		}
		return b.API.Source, ptr.Value(b.API.ResolvedSourceVersion)
	}
	for i := range b.API.SecondarySources {
		src := &b.API.SecondarySources[i]
		if ptr.Value(src.SourceIdentifier) != identifier || ptr.Value(src.Type) != api.SourceTypeCodecommit {
			continue
		}
		for _, v := range b.API.SecondarySourceVersions {
			if ptr.Value(v.SourceIdentifier) == identifier {
				return src, ptr.Value(v.SourceVersion)
			}
		}
	}
	return nil, ""
}

// repositoryName is the last part of a clone URL.
func repositoryName(src *api.ProjectSource) string {
	l := strings.TrimSuffix(ptr.Value(src.Location), "/")
	return strings.TrimSuffix(l[strings.LastIndexByte(l, '/')+1:], ".git")
}
