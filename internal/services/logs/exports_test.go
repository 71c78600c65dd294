package logs_test

import (
	"compress/gzip"
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	api "slipway/internal/api/logs"
	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
)

func TestExport(t *testing.T) {
	f := start(t)
	var mu sync.Mutex
	objects := map[string]string{}
	dispatch.Register(f.mux, s3.OpPutObject, func(_ context.Context, in *s3.PutObjectInput) (*s3.PutObjectOutput, error) {
		if *in.Bucket != "bucket" {
			return nil, awserr.New("NoSuchBucket", "The specified bucket does not exist")
		}
		b, err := io.ReadAll(in.Body)
		if err != nil || int64(len(b)) != *in.ContentLength {
			t.Errorf("%d bytes, said %d; %v", len(b), *in.ContentLength, err)
		}
		mu.Lock()
		objects[*in.Key] = string(b)
		mu.Unlock()
		return &s3.PutObjectOutput{}, nil
	})
	f.create("g", "s", "other/stream")
	f.mustPut("one", "two")
	f.put("g", "other/stream", event(f.now, "three"))
	in := &api.CreateExportTaskInput{LogGroupName: new("g"), From: new(f.now - 1000), To: new(f.now + 1000), Destination: new("none")}
	if _, err := dispatch.Call(f.ctx, f.mux, api.OpCreateExportTask, in); !awserr.Is(err, "InvalidParameterException") {
		t.Error(err)
	}
	in.Destination = new("bucket")
	task, err := dispatch.Call(f.ctx, f.mux, api.OpCreateExportTask, in)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dispatch.Call(f.ctx, f.mux, api.OpCreateExportTask, in); !awserr.Is(err, "LimitExceededException") {
		t.Error("a second task at the same time:", err)
	}
	f.run()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		out, err := dispatch.Call(f.ctx, f.mux, api.OpDescribeExportTasks, &api.DescribeExportTasksInput{TaskId: task.TaskId})
		if err != nil || len(out.ExportTasks) != 1 {
			t.Fatal(out, err)
		}
		if *out.ExportTasks[0].Status.Code == "COMPLETED" {
			break
		}
		if time.Now().After(end) {
			t.Fatal(*out.ExportTasks[0].Status.Code)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	dir := "exportedlogs/" + *task.TaskId
	want := []string{dir + "/other-stream/000000.gz", dir + "/s/000000.gz", "exportedlogs/aws-logs-write-test"}
	slices.Sort(want)
	if names := slices.Sorted(maps.Keys(objects)); !slices.Equal(names, want) {
		t.Fatal(names)
	}
	z, err := gzip.NewReader(strings.NewReader(objects[dir+"/s/000000.gz"]))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	stamp := time.UnixMilli(f.now).UTC().Format("2006-01-02T15:04:05.000Z")
	if string(text) != stamp+" one\n"+stamp+" two\n" {
		t.Errorf("%q %v", text, err)
	}
	if _, err := dispatch.Call(f.ctx, f.mux, api.OpCancelExportTask, &api.CancelExportTaskInput{TaskId: task.TaskId}); !awserr.Is(err, "InvalidOperationException") {
		t.Error(err)
	}
}
