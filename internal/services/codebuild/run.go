package codebuild

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"slipway/internal/agent/build"
	api "slipway/internal/api/codebuild"
	"slipway/internal/api/sts"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/clock"
	"slipway/internal/machine"
	"slipway/internal/store"
)

// faultContext is the status code of what is nobody's fault but ours.
const faultContext = "INTERNAL_SERVICE_ERROR"

// attempts is how often a build is taken up again after trouble on our side.
const attempts = 5

// errOver says that the build has its final status, by whoever's hand.
var errOver = errors.New("the build is over")

// drive takes a build to its end, or returns when ctx ends.
func (s *Service) drive(ctx context.Context, key store.Key) {
	for attempt := 1; ; attempt++ {
		err := s.driveOnce(ctx, key)
		if err == nil || ctx.Err() != nil || errors.Is(err, errOver) || errors.Is(err, store.ErrNotFound) {
			return
		}
		var why *failure
		switch {
		case errors.As(err, &why):
			err = s.end(ctx, key, why.status, because(why.code, why.message))
		case attempt >= attempts || errors.Is(err, errLost):
			s.deps.Log.Error("build failed on our side", "build", key.ID, "error", err)
			err = s.end(ctx, key, api.StatusTypeFault, because(faultContext, err.Error()+s.shortage()))
		default:
			s.deps.Log.Warn("build is taken up again", "build", key.ID, "error", err)
			_ = clock.Real.Sleep(ctx, time.Duration(attempt)*200*time.Millisecond) // ended: seen above
			continue
		}
		// A build that is no longer there was deleted while it ran.
		if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrNotFound) {
			s.deps.Log.Error("build's end not recorded", "build", key.ID, "error", err)
		}
		return
	}
}

// shortage says that there is no room on the disk, where that is so: a runner
// that cannot write cannot say why it ended.
func (s *Service) shortage() string {
	const little = 4 << 20 // a runner with that much left does not end for want of it
	if s.deps.Free == nil {
		return ""
	}
	if free, ok := s.deps.Free(); !ok || free >= little {
		return ""
	}
	return "; the disk that holds the data directory is full: make room and start the build again"
}

// failure ends a build with a reason that its user can act upon.
type failure struct{ status, code, message string }

func (f *failure) Error() string { return f.message }

// errLost says that the machine or the runner in it is gone for good.
var errLost = errors.New("the build environment was lost")

func (s *Service) driveOnce(ctx context.Context, key store.Key) error {
	row, err := builds.Find(ctx, s.deps.Store, key.Account, key.Region, key.ID)
	if err != nil {
		return err
	}
	if row.Doc.Complete() {
		return nil
	}
	if row.Doc.LaunchedAt.IsZero() {
		if row, err = s.launch(ctx, row); err != nil {
			return err
		}
	} else if st, err := s.deps.Machines.Status(machineID(key.ID)); err != nil || st.State != machine.StateRunning {
		return fmt.Errorf("%w: its machine is not running any more", errLost)
	}
	return s.tail(ctx, row)
}

// change saves what fn does to a build that is not over.
func (s *Service) change(ctx context.Context, key store.Key, event string, fn func(tx store.Tx, row *buildRow) error) (*buildRow, error) {
	var row *buildRow
	err := s.deps.Store.Update(ctx, func(tx store.Tx) (err error) {
		if row, err = builds.Get(tx, key.Account, key.Region, key.ID); err != nil {
			return err
		}
		if row.Doc.Complete() {
			return errOver
		}
		before := row.Doc.told()
		if err := fn(tx, row); err != nil {
			return err
		}
		return builds.Save(tx, row, event, changes(row, before))
	})
	return row, err
}

// launch boots the machine and starts the runner in it. Every step finds what
// an earlier try has done.
func (s *Service) launch(ctx context.Context, row *buildRow) (*buildRow, error) {
	row, err := s.change(ctx, row.Key, "Provisioning", func(tx store.Tx, row *buildRow) error {
		b := &row.Doc
		if b.Address == "" {
			ip, err := lease(tx, row.ID)
			if err != nil {
				return err
			}
			b.Address = ip
		}
		if b.phase(api.BuildPhaseTypeProvisioning) == nil {
			now := s.deps.Clock.Now()
			b.leave(api.BuildPhaseTypeQueued, api.StatusTypeSucceeded, now)
			b.enter(api.BuildPhaseTypeProvisioning, now)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	credentials, err := s.assume(ctx, row)
	if err != nil {
		return nil, err
	}
	job, err := s.job(row, credentials)
	if err != nil {
		if e := awserr.As(err); e != nil {
			return nil, &failure{api.StatusTypeFailed, build.CodeClientError, e.Message}
		}
		return nil, err
	}
	if _, err := s.deps.Machines.Boot(ctx, s.spec(row)); err != nil {
		return nil, fmt.Errorf("boot the build's machine: %w", err)
	}
	if err := s.startRunner(ctx, row, job); err != nil {
		return nil, err
	}
	return s.change(ctx, row.Key, "Launched", func(_ store.Tx, row *buildRow) error {
		b, now := &row.Doc, s.deps.Clock.Now()
		b.leave(api.BuildPhaseTypeProvisioning, api.StatusTypeSucceeded, now, because("", ""))
		b.LaunchedAt = now
		return nil
	})
}

// buildNet is the part of the VPC for builds: instances live below it.
var buildNet = netip.MustParsePrefix("172.31.240.0/20")

// lease takes a free address for a build, a random one so that it is not soon
// used again. Addresses are unique over accounts: machines share one network.
func lease(tx store.Tx, id string) (string, error) {
	var b [4]byte
	rand.Read(b[:]) // never fails
	size := uint32(1)<<(32-buildNet.Bits()) - 5
	first, base := binary.BigEndian.Uint32(b[:])%size, buildNet.Addr().As4()
	for i := range size {
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(base[:])+4+(first+i)%size)
		ip := netip.AddrFrom4(b).String()
		_, err := leases.Insert(tx, "", "", ip, Lease{Build: id}, "Leased", nil)
		if err == nil {
			return ip, nil
		}
		if !errors.Is(err, store.ErrExists) {
			return "", err
		}
	}
	return "", errors.New("no address is free for a build")
}

// compute is what the compute types have (AWS: "Build environment compute
// modes and types").
var compute = map[string]struct {
	cpus float64
	gib  int64
}{
	"BUILD_GENERAL1_SMALL": {2, 4}, "BUILD_GENERAL1_MEDIUM": {4, 8}, "BUILD_GENERAL1_LARGE": {8, 16},
	"BUILD_GENERAL1_XLARGE": {36, 72}, "BUILD_GENERAL1_2XLARGE": {72, 144},
}

func (s *Service) spec(row *buildRow) machine.Spec {
	b := &row.Doc
	spec := machine.Spec{
		ID: machineID(row.ID), Kind: machine.KindBuild, PrivateIP: b.Address, Image: s.image(ptr.Value(b.API.Environment.Image)),
		Env:    []string{"AWS_ENDPOINT_URL=" + s.deps.Endpoint, "AWS_REGION=" + row.Region, "AWS_DEFAULT_REGION=" + row.Region},
		Labels: map[string]string{labelBuild: row.ID, labelAccount: row.Account, labelRegion: row.Region},
	}
	if c, ok := compute[ptr.Value(b.API.Environment.ComputeType)]; ok {
		spec.VCPUs, spec.MemoryBytes = c.cpus, c.gib<<30
	}
	if b.Cache != "" {
		spec.Mounts = []machine.Mount{{Source: b.Cache, Target: cacheMount}}
	}
	return spec
}

// image is the registered image of that name or id, else the default one,
// which stands for all of AWS's curated images.
func (s *Service) image(name string) string {
	images := s.deps.Machines.Images()
	if i := slices.IndexFunc(images, func(im machine.Image) bool { return im.ID == name || im.Name == name }); i >= 0 {
		return images[i].ID
	}
	return machine.DefaultImage
}

// assume gets the keys of the project's role.
func (s *Service) assume(ctx context.Context, row *buildRow) (*build.Credentials, error) {
	c, err := s.roleKeys(ctx, row)
	if err != nil || c == nil {
		return nil, err
	}
	return &build.Credentials{AccessKeyID: ptr.Value(c.AccessKeyId), SecretAccessKey: ptr.Value(c.SecretAccessKey), SessionToken: ptr.Value(c.SessionToken)}, nil
}

func (s *Service) roleKeys(ctx context.Context, row *buildRow) (*sts.Credentials, error) {
	role := ptr.Value(row.Doc.API.ServiceRole)
	if role == "" {
		return nil, nil
	}
	if !strings.HasPrefix(role, "arn:") {
		role = "arn:aws:iam::" + row.Account + ":role/" + role
	}
	session := "AWSCodeBuild-" + strings.TrimPrefix(machineID(row.ID), "build-")
	out, err := dispatch.Call(s.as(ctx, row.Key), s.deps.Mux, sts.OpAssumeRole, &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: &session})
	if e := awserr.As(err); e != nil {
		return nil, &failure{api.StatusTypeFailed, build.CodeClientError, "CodeBuild is not authorized to perform: sts:AssumeRole on " + role + ": " + e.Message}
	}
	if err != nil {
		return nil, err
	}
	return out.Credentials, nil
}

// startScript starts the runner in a session of its own, so that it outlives
// this server, and returns once it has taken its job. The job comes on stdin
// and is not kept: it holds credentials. Done twice, it does nothing.
const startScript = `set -e
[ -e ` + eventsFile + ` ] && exit 0
mkdir -p ` + runDir + `
chmod 755 /codebuild
exec 3<&0
setsid ` + machine.SlipwayBinary + ` agent build --events ` + eventsFile + ` <&3 >` + runDir + `/output 2>&1 &
runner=$!
exec 3<&-
echo $runner >` + pidFile + `
while [ ! -e ` + eventsFile + ` ]; do
	kill -0 $runner 2>/dev/null || { cat ` + runDir + `/output >&2; exit 1; }
	sleep 0.01
done`

// tailScript prints events from number $1 on, and gives up when the runner
// died without a last word.
const tailScript = `runner=$(cat ` + pidFile + `)
` + machine.SlipwayBinary + ` agent build --tail ` + eventsFile + ` --from $1 &
tail=$!
while kill -0 $tail 2>/dev/null; do
	kill -0 $runner 2>/dev/null || { sleep 1; kill $tail 2>/dev/null; break; }
	sleep 0.5
done
wait $tail`

func (s *Service) startRunner(ctx context.Context, row *buildRow, job build.Job) error {
	doc, err := json.Marshal(job)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	code, err := s.deps.Machines.Exec(ctx, machineID(row.ID), machine.ExecSpec{
		Args: []string{"sh", "-c", startScript}, Dir: "/", Stdin: bytes.NewReader(doc), Stdout: &out, Stderr: &out, Timeout: time.Minute})
	if err != nil {
		return fmt.Errorf("start the build runner: %w", err)
	}
	if code != 0 {
		return fmt.Errorf("%w: the build runner did not start (exit status %d): %s", errLost, code, strings.TrimSpace(out.String()))
	}
	return nil
}

// maxEvent bounds an event, in bytes; a report of 500 long messages is the
// largest.
const maxEvent = 32 << 20

// tail follows the events of a runner until its last one.
func (s *Service) tail(ctx context.Context, row *buildRow) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pr, pw := io.Pipe()
	defer pr.Close()
	execDone := make(chan struct{})
	go func() {
		defer close(execDone)
		from := fmt.Sprint(row.Doc.Seq + 1)
		_, err := s.deps.Machines.Exec(ctx, machineID(row.ID), machine.ExecSpec{
			Args: []string{"sh", "-c", tailScript, "tail", from}, Dir: "/", Stdout: pw})
		if err == nil {
			err = io.EOF
		}
		pw.CloseWithError(err)
	}()
	defer func() { cancel(); pr.Close(); <-execDone }()
	events := make(chan build.Event, 256)
	var readErr error
	go func() {
		defer close(events)
		r := bufio.NewScanner(pr)
		r.Buffer(nil, maxEvent)
		for r.Scan() {
			var ev build.Event
			if err := json.Unmarshal(r.Bytes(), &ev); err != nil {
				readErr = fmt.Errorf("%w: an event cannot be read: %w", errLost, err)
				return
			}
			select {
			case events <- ev:
			case <-ctx.Done():
				readErr = ctx.Err()
				return
			}
		}
		if readErr = r.Err(); readErr == nil {
			readErr = io.EOF
		}
	}()
	f := &follower{s: s, row: row}
	for ev := range events {
		batch := []build.Event{ev}
		for len(batch) < 256 && len(events) > 0 {
			batch = append(batch, <-events)
		}
		if err := f.take(ctx, batch); err != nil {
			return err
		}
		if batch[len(batch)-1].Type == build.EventDone {
			return nil
		}
	}
	if ctx.Err() == nil && errors.Is(readErr, io.EOF) {
		if s.deps.Machines.Name() == "simulated" {
			return fmt.Errorf("%w: simulated machines run no builds, start the server with --machines=sandbox", errLost)
		}
		return fmt.Errorf("%w: the build runner ended before the build", errLost)
	}
	return readErr
}

// onClock is a time of the machine's, which is real, on the service's clock.
func (s *Service) onClock(t time.Time) time.Time {
	if s.deps.Clock == clock.Real {
		return t
	}
	return s.deps.Clock.Now().Add(-s.inClock(clock.Real.Since(t)))
}

// follower accounts for events: side effects first, then the row that says
// that they were done. A repeat after a crash does a little twice.
type follower struct {
	s     *Service
	row   *buildRow
	lines lines
}

func (f *follower) take(ctx context.Context, batch []build.Event) error {
	for i := range batch {
		batch[i].Time = f.s.onClock(batch[i].Time)
	}
	var text []logLine
	for _, ev := range batch {
		switch ev.Type {
		case build.EventLog:
			for _, l := range f.lines.add(ev.Log) {
				text = append(text, logLine{ev.Time, l})
			}
		case build.EventDone:
			for _, l := range f.lines.flush() {
				text = append(text, logLine{ev.Time, l})
			}
		}
	}
	if err := f.s.writeLog(ctx, f.row, text); err != nil {
		return err
	}
	news := false
	var stored []storedArtifact
	var made []Report
	trouble := f.row.Doc.Trouble
	for _, ev := range batch {
		news = news || ev.Type != build.EventLog
		switch ev.Type {
		case build.EventArtifact:
			done, err := f.s.storeArtifact(ctx, f.row, ev.Artifact)
			if e := awserr.As(err); e != nil {
				trouble = e.Message
				f.row.Doc.Trouble = trouble
			} else if err != nil {
				return err
			} else {
				stored = append(stored, done)
			}
		case build.EventReport:
			made = append(made, f.s.report(f.row, ev.Report, ev.Time))
		}
	}
	if !news {
		return nil // lines alone are not worth a write; after a crash they are told again
	}
	row, err := f.s.change(ctx, f.row.Key, "Progressed", func(tx store.Tx, row *buildRow) error {
		b := &row.Doc
		b.Trouble = trouble
		for _, a := range stored {
			a.show(b)
		}
		for i := range made {
			if err := insertReport(tx, row, &made[i]); err != nil {
				return err
			}
		}
		for _, ev := range batch {
			b.apply(ev)
		}
		return nil
	})
	if err != nil {
		return err
	}
	f.row = row
	return nil
}
