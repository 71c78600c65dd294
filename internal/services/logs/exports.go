package logs

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"slipway/internal/api/logs"
	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/services/logs/segment"
	"slipway/internal/store"
)

// export is one CreateExportTask: a group's events written to a bucket as
// PREFIX/TASK/STREAM/NNNNNN.gz, a line each.
type export struct {
	ID, Name, Group, StreamPrefix, Bucket, Prefix string
	From, To                                      int64
	Created                                       int64
	Completed                                     int64 `json:",omitempty"`
	Status, Message                               string
}

// exports are found by their state, so that a restarted server goes on.
var exports = store.NewTable("logs:export", func(e *export) (string, string) { return e.Group, e.Status })

const (
	exportPart = 32 << 20 // compressed bytes of one object
	maxExports = 1000     // remembered
)

// exporter runs the tasks one by one.
type exporter struct {
	wake chan struct{}

	mu      sync.Mutex
	running string
	cancel  context.CancelFunc
}

func newExporter() *exporter { return &exporter{wake: make(chan struct{}, 1)} }

func (s *Service) registerExports(m *dispatch.Mux) {
	dispatch.Register(m, logs.OpCreateExportTask, s.createExport)
	dispatch.Register(m, logs.OpDescribeExportTasks, s.describeExports)
	dispatch.Register(m, logs.OpCancelExportTask, s.cancelExport)
}

func (s *Service) createExport(ctx context.Context, in *logs.CreateExportTaskInput) (*logs.CreateExportTaskOutput, error) {
	id := caller.From(ctx)
	e := export{ID: newUUID(), Name: ptr.Value(in.TaskName), Group: ptr.Value(in.LogGroupName), StreamPrefix: ptr.Value(in.LogStreamNamePrefix), Bucket: ptr.Value(in.Destination),
		Prefix: ptr.Value(in.DestinationPrefix), From: ptr.Value(in.From), To: ptr.Value(in.To), Created: s.Clock.Now().UnixMilli(), Status: "PENDING"}
	if e.Prefix == "" {
		e.Prefix = "exportedlogs"
	}
	if e.From > e.To {
		return nil, invalid("The from time must not be after the to time.")
	}
	if _, err := s.findGroup(ctx, e.Group); err != nil {
		return nil, err
	}
	// AWS tries the bucket out with an object of this name.
	test := strings.NewReader("Permission Check Successful")
	if err := s.putObject(caller.ForService(ctx, "logs", id.Account, id.Region), e.Bucket, e.Prefix+"/aws-logs-write-test", test, int64(test.Len())); err != nil {
		return nil, invalid("The bucket %s cannot be written to: %s", e.Bucket, err)
	}
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		rows, err := exports.List(tx, store.Query{Account: id.Account, Region: id.Region})
		if err != nil {
			return err
		}
		for i, r := range rows {
			if r.Doc.Status == "PENDING" || r.Doc.Status == "RUNNING" {
				return awserr.New("LimitExceededException", "Resource limit exceeded.")
			}
			if len(rows)-i >= maxExports {
				if err := exports.Delete(tx, r, "Forgotten", nil); err != nil {
					return err
				}
			}
		}
		_, err = exports.Insert(tx, id.Account, id.Region, e.ID, e, "Created", nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	select {
	case s.exporter.wake <- struct{}{}:
	default:
	}
	return &logs.CreateExportTaskOutput{TaskId: &e.ID}, nil
}

func (s *Service) putObject(ctx context.Context, bucket, key string, body io.Reader, size int64) error {
	_, err := dispatch.Call(ctx, s.mux, s3.OpPutObject, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: io.NopCloser(body), ContentLength: &size})
	return err
}

// runExports works through the tasks until ctx ends. A task that a crash
// interrupted is done anew: its objects have the same names.
func (s *Service) runExports(ctx context.Context) {
	for {
		for _, status := range []string{"RUNNING", "PENDING"} {
			rows, err := exports.Select(ctx, s.Store, store.Query{State: status})
			if err != nil && ctx.Err() == nil {
				s.Log.Error("logs: reading export tasks", "error", err)
			}
			for _, r := range rows {
				s.runExport(ctx, r)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-s.exporter.wake:
		}
	}
}

func (s *Service) runExport(ctx context.Context, r *store.Row[export]) {
	tctx, cancel := context.WithCancel(caller.ForService(ctx, "logs", r.Account, r.Region))
	defer cancel()
	s.exporter.mu.Lock()
	s.exporter.running, s.exporter.cancel = r.ID, cancel
	s.exporter.mu.Unlock()
	defer func() {
		s.exporter.mu.Lock()
		s.exporter.running = ""
		s.exporter.mu.Unlock()
	}()
	if !s.exportStatus(ctx, r, "RUNNING", "") {
		return
	}
	err := s.writeExport(tctx, &r.Doc)
	switch {
	case ctx.Err() != nil: // the next server does it
	case tctx.Err() != nil:
		s.exportStatus(ctx, r, "CANCELLED", "Cancelled by the user")
	case err != nil:
		s.exportStatus(ctx, r, "FAILED", err.Error())
	default:
		s.exportStatus(ctx, r, "COMPLETED", "Completed successfully")
	}
}

// exportStatus changes a task's state unless it has ended meanwhile.
func (s *Service) exportStatus(ctx context.Context, r *store.Row[export], status, message string) bool {
	changed := false
	_, err := exports.Modify(ctx, s.Store, r.Account, r.Region, r.ID, "Changed", func(e *export) error {
		if changed = e.Status == "PENDING" || e.Status == "RUNNING"; !changed {
			return nil
		}
		e.Status, e.Message = status, message
		if status != "RUNNING" {
			e.Completed = s.Clock.Now().UnixMilli()
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		s.Log.Error("logs: export task", "task", r.ID, "error", err)
	}
	return changed && err == nil
}

func (s *Service) writeExport(ctx context.Context, e *export) error {
	g, err := s.findGroup(ctx, e.Group)
	if err != nil {
		return err
	}
	l, err := s.log(&g.Doc)
	if err != nil {
		return err
	}
	rows, err := streams.Select(ctx, s.Store, store.Query{Account: g.Account, Region: g.Region, Parent: g.ID, Prefix: streamID(e.Group, e.StreamPrefix)})
	if err != nil {
		return err
	}
	for _, st := range rows {
		w := &exportWriter{s: s, ctx: ctx, bucket: e.Bucket, dir: e.Prefix + "/" + e.ID + "/" + strings.ReplaceAll(st.Doc.Name, "/", "-")}
		q := segment.Query{Streams: map[uint32]bool{st.Doc.Number: true}, From: max(e.From, s.cutoff(&g.Doc)), To: e.To}
		err := l.Scan(ctx, q, func(r *segment.Record) bool { return w.line(r) == nil })
		if err := errors.Join(err, w.err, w.flush()); err != nil {
			return err
		}
	}
	return nil
}

// exportWriter writes one stream's objects.
type exportWriter struct {
	s           *Service
	ctx         context.Context
	bucket, dir string
	n           int
	buf         bytes.Buffer
	z           *gzip.Writer
	err         error
}

func (w *exportWriter) line(r *segment.Record) error {
	if w.z == nil {
		w.buf.Reset()
		w.z = gzip.NewWriter(&w.buf)
	}
	if _, w.err = fmt.Fprintf(w.z, "%s %s\n", time.UnixMilli(r.Time).UTC().Format("2006-01-02T15:04:05.000Z"), r.Message); w.err == nil && w.buf.Len() >= exportPart {
		w.err = w.flush()
	}
	return w.err
}

// flush stores what has been written as an object.
func (w *exportWriter) flush() error {
	if w.z == nil || w.err != nil {
		return w.err
	}
	if err := w.z.Close(); err != nil {
		return err
	}
	w.z = nil
	err := w.s.putObject(w.ctx, w.bucket, fmt.Sprintf("%s/%06d.gz", w.dir, w.n), &w.buf, int64(w.buf.Len()))
	w.n++
	return err
}

func (s *Service) describeExports(ctx context.Context, in *logs.DescribeExportTasksInput) (*logs.DescribeExportTasksOutput, error) {
	after, err := decodeToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	id := caller.From(ctx)
	rows, err := exports.Select(ctx, s.Store, store.Query{Account: id.Account, Region: id.Region, After: after})
	if err != nil {
		return nil, err
	}
	out := &logs.DescribeExportTasksOutput{ExportTasks: []logs.ExportTask{}}
	limit, last := pageLimit(in.Limit, 50), ""
	for _, r := range rows {
		e := &r.Doc
		if in.TaskId != nil && e.ID != *in.TaskId || in.StatusCode != nil && e.Status != *in.StatusCode {
			continue
		}
		if len(out.ExportTasks) == limit {
			out.NextToken = encodeToken(last)
			break
		}
		last = r.ID
		out.ExportTasks = append(out.ExportTasks, logs.ExportTask{TaskId: &e.ID, TaskName: ptr.NonZero(e.Name), LogGroupName: &e.Group, From: &e.From, To: &e.To, Destination: &e.Bucket,
			DestinationPrefix: &e.Prefix, Status: &logs.ExportTaskStatus{Code: &e.Status, Message: ptr.NonZero(e.Message)},
			ExecutionInfo: &logs.ExportTaskExecutionInfo{CreationTime: &e.Created, CompletionTime: ptr.NonZero(e.Completed)}})
	}
	return out, nil
}

func (s *Service) cancelExport(ctx context.Context, in *logs.CancelExportTaskInput) (*logs.CancelExportTaskOutput, error) {
	id := caller.From(ctx)
	_, err := exports.Modify(ctx, s.Store, id.Account, id.Region, ptr.Value(in.TaskId), "Cancelled", func(e *export) error {
		if e.Status != "PENDING" && e.Status != "RUNNING" {
			return awserr.New("InvalidOperationException", "The specified export task has already finished.")
		}
		e.Status, e.Message, e.Completed = "CANCELLED", "Cancelled by the user", s.Clock.Now().UnixMilli()
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, awserr.New("ResourceNotFoundException", "The specified export task does not exist.")
	}
	if err != nil {
		return nil, err
	}
	s.exporter.mu.Lock()
	defer s.exporter.mu.Unlock()
	if s.exporter.running == ptr.Value(in.TaskId) {
		s.exporter.cancel()
	}
	return &logs.CancelExportTaskOutput{}, nil
}
