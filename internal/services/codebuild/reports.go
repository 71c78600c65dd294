package codebuild

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"slipway/internal/agent/build"
	api "slipway/internal/api/codebuild"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// reportLife is how long a report is said to be kept (AWS: 30 days).
const reportLife = 30 * 24 * time.Hour

func (s *Service) registerReports(m *dispatch.Mux) {
	dispatch.Register(m, api.OpBatchGetReports, s.batchGetReports)
	dispatch.Register(m, api.OpBatchGetReportGroups, s.batchGetReportGroups)
	dispatch.Register(m, api.OpDescribeTestCases, s.describeTestCases)
	dispatch.Register(m, api.OpListReports, s.listReports)
	dispatch.Register(m, api.OpListReportGroups, s.listReportGroups)
	dispatch.Register(m, api.OpListReportsForReportGroup, s.listReportsForReportGroup)
}

// report is the row of what the runner read. Its id comes from the build and
// the group, so that a repeat finds it.
func (s *Service) report(row *buildRow, r *build.Report, at time.Time) Report {
	id := caller.Identity{Account: row.Account, Region: row.Region}
	group := nameOf(id, "report-group", r.Group)
	sum := sha256.Sum256([]byte(row.ID + "/" + group))
	name := fmt.Sprintf("%s:%x-%x-%x-%x-%x", group, sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
	counts := map[string]int64{"SUCCEEDED": 0, "FAILED": 0, "ERROR": 0, "SKIPPED": 0, "UNKNOWN": 0}
	for k, n := range r.Counts {
		counts[k] = int64(n)
	}
	out := Report{Group: group, API: api.Report{
		Arn: new(arn(id, "report", name)), Name: &name, ReportGroupArn: new(arn(id, "report-group", group)), Type: &r.Type, Status: &r.Status,
		ExecutionId: row.Doc.API.Arn, Created: &at, Expired: new(at.Add(reportLife)), Truncated: new(r.Total > len(r.Cases)),
		ExportConfig: &api.ReportExportConfig{ExportConfigType: new("NO_EXPORT")},
		TestSummary:  &api.TestReportSummary{Total: new(int64(r.Total)), StatusCounts: counts, DurationInNanoSeconds: &r.DurationNs},
	}}
	for _, c := range r.Cases {
		out.Cases = append(out.Cases, api.TestCase{ReportArn: out.API.Arn, TestRawDataPath: ptr.NonZero(c.File), Prefix: ptr.NonZero(c.Prefix), Name: new(c.Name),
			Status: new(c.Status), DurationInNanoSeconds: new(c.DurationNs), Message: ptr.NonZero(c.Message), Expired: out.API.Expired})
	}
	return out
}

// insertReport adds a report, with its group where that is new, to a build.
func insertReport(tx store.Tx, row *buildRow, r *Report) error {
	now := *r.API.Created
	_, err := groups.Insert(tx, row.Account, row.Region, r.Group, ReportGroup{API: api.ReportGroup{
		Arn: r.API.ReportGroupArn, Name: &r.Group, Type: r.API.Type, ExportConfig: r.API.ExportConfig, Created: &now, LastModified: &now,
		Status: new(api.ReportGroupStatusTypeActive)}}, "Created", nil)
	if err != nil && !errors.Is(err, store.ErrExists) {
		return err
	}
	if _, err := reports.Insert(tx, row.Account, row.Region, *r.API.Name, *r, "Created", nil); err != nil && !errors.Is(err, store.ErrExists) {
		return err
	}
	if !slices.Contains(row.Doc.API.ReportArns, *r.API.Arn) {
		row.Doc.API.ReportArns = append(row.Doc.API.ReportArns, *r.API.Arn)
	}
	return nil
}

func (s *Service) batchGetReports(ctx context.Context, in *api.BatchGetReportsInput) (*api.BatchGetReportsOutput, error) {
	id := caller.From(ctx)
	out := &api.BatchGetReportsOutput{Reports: []api.Report{}, ReportsNotFound: []string{}}
	for _, a := range in.ReportArns {
		row, err := reports.Find(ctx, s.deps.Store, id.Account, id.Region, nameOf(id, "report", a))
		switch {
		case errors.Is(err, store.ErrNotFound):
			out.ReportsNotFound = append(out.ReportsNotFound, a)
		case err != nil:
			return nil, err
		default:
			out.Reports = append(out.Reports, row.Doc.API)
		}
	}
	return out, nil
}

func (s *Service) batchGetReportGroups(ctx context.Context, in *api.BatchGetReportGroupsInput) (*api.BatchGetReportGroupsOutput, error) {
	id := caller.From(ctx)
	out := &api.BatchGetReportGroupsOutput{ReportGroups: []api.ReportGroup{}, ReportGroupsNotFound: []string{}}
	for _, a := range in.ReportGroupArns {
		row, err := groups.Find(ctx, s.deps.Store, id.Account, id.Region, nameOf(id, "report-group", a))
		switch {
		case errors.Is(err, store.ErrNotFound):
			out.ReportGroupsNotFound = append(out.ReportGroupsNotFound, a)
		case err != nil:
			return nil, err
		default:
			out.ReportGroups = append(out.ReportGroups, row.Doc.API)
		}
	}
	return out, nil
}

func (s *Service) describeTestCases(ctx context.Context, in *api.DescribeTestCasesInput) (*api.DescribeTestCasesOutput, error) {
	id := caller.From(ctx)
	row, err := reports.Find(ctx, s.deps.Store, id.Account, id.Region, nameOf(id, "report", ptr.Value(in.ReportArn)))
	if errors.Is(err, store.ErrNotFound) {
		return nil, awserr.New(api.ErrCodeResourceNotFoundException, "Report does not exist: %s", ptr.Value(in.ReportArn))
	}
	if err != nil {
		return nil, err
	}
	out := &api.DescribeTestCasesOutput{TestCases: []api.TestCase{}} // at most 500, which is AWS's largest page
	for _, c := range row.Doc.Cases {
		if f := in.Filter; f != nil && (f.Status != nil && ptr.Value(c.Status) != *f.Status || f.Keyword != nil && !strings.Contains(ptr.Value(c.Prefix)+" "+ptr.Value(c.Name), *f.Keyword)) {
			continue
		}
		out.TestCases = append(out.TestCases, c)
	}
	return out, nil
}

func (s *Service) listReports(ctx context.Context, in *api.ListReportsInput) (*api.ListReportsOutput, error) {
	arns, next, err := s.reportARNs(ctx, "", in.Filter, in.SortOrder, in.NextToken)
	return &api.ListReportsOutput{Reports: arns, NextToken: next}, err
}

func (s *Service) listReportsForReportGroup(ctx context.Context, in *api.ListReportsForReportGroupInput) (*api.ListReportsForReportGroupOutput, error) {
	group := nameOf(caller.From(ctx), "report-group", ptr.Value(in.ReportGroupArn))
	arns, next, err := s.reportARNs(ctx, group, in.Filter, in.SortOrder, in.NextToken)
	return &api.ListReportsForReportGroupOutput{Reports: arns, NextToken: next}, err
}

// reportARNs lists reports, the newest first unless asked otherwise.
func (s *Service) reportARNs(ctx context.Context, group string, filter *api.ReportFilter, order, token *string) ([]string, *string, error) {
	id := caller.From(ctx)
	q := store.Query{Account: id.Account, Region: id.Region, Parent: group}
	if filter != nil {
		q.State = ptr.Value(filter.Status)
	}
	rows, err := reports.Select(ctx, s.deps.Store, q)
	if err != nil {
		return nil, nil, err
	}
	slices.SortStableFunc(rows, func(a, b *store.Row[Report]) int { return a.Created.Compare(b.Created) })
	if ptr.Value(order) != api.SortOrderTypeAscending {
		slices.Reverse(rows)
	}
	arns := make([]string, len(rows))
	for i, row := range rows {
		arns[i] = ptr.Value(row.Doc.API.Arn)
	}
	return page(arns, token)
}

func (s *Service) listReportGroups(ctx context.Context, in *api.ListReportGroupsInput) (*api.ListReportGroupsOutput, error) {
	id := caller.From(ctx)
	rows, err := groups.Select(ctx, s.deps.Store, store.Query{Account: id.Account, Region: id.Region})
	if err != nil {
		return nil, err
	}
	arns := make([]string, len(rows))
	for i, row := range rows {
		arns[i] = ptr.Value(row.Doc.API.Arn)
	}
	if ptr.Value(in.SortOrder) == api.SortOrderTypeDescending {
		slices.Reverse(arns)
	}
	arns, next, err := page(arns, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &api.ListReportGroupsOutput{ReportGroups: arns, NextToken: next}, nil
}
