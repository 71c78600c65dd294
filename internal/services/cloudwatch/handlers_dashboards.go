package cloudwatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
	"slipway/internal/store"
)

var dashboardName = lazyre.New(`^[A-Za-z0-9_-]{1,255}$`)

func dashboardARN(account, name string) string {
	return fmt.Sprintf("arn:aws:cloudwatch::%s:dashboard/%s", account, name)
}

func badDashboard(message, path string) error {
	return awserr.New(api.ErrCodeDashboardInvalidInputError, "The dashboard is invalid: %s", message).
		WithField("dashboardValidationMessages", []api.DashboardValidationMessage{{DataPath: &path, Message: &message}})
}

func (s *Service) putDashboard(ctx context.Context, in *api.PutDashboardInput) (*api.PutDashboardOutput, error) {
	if !dashboardName.MatchString(ptr.Value(in.DashboardName)) {
		return nil, badDashboard("The dashboard name must consist of 1 to 255 letters, digits, hyphens and underscores.", "/")
	}
	messages, err := checkDashboard(ptr.Value(in.DashboardBody))
	if err != nil {
		return nil, err
	}
	account, _ := where(ctx)
	doc := dashboard{Name: *in.DashboardName, Body: *in.DashboardBody, Modified: s.clock.Now()}
	err = s.store.Update(ctx, func(tx store.Tx) error {
		row, err := dashboards.Get(tx, account, "", doc.Name)
		if errors.Is(err, store.ErrNotFound) {
			_, err = dashboards.Insert(tx, account, "", doc.Name, doc, "Created", nil)
			return err
		}
		if err != nil {
			return err
		}
		row.Doc = doc
		return dashboards.Save(tx, row, "Updated", nil)
	})
	return &api.PutDashboardOutput{DashboardValidationMessages: messages}, err
}

const (
	maxDashboard = 1 << 20 // bytes
	maxWidgets   = 500
)

// checkDashboard refuses what is no dashboard; what is odd but kept comes back
// as messages (CloudWatch API reference, "Dashboard body structure and syntax").
func checkDashboard(body string) ([]api.DashboardValidationMessage, error) {
	out := []api.DashboardValidationMessage{}
	if len(body) > maxDashboard {
		return nil, badDashboard(fmt.Sprintf("The dashboard body must not be longer than %d bytes.", maxDashboard), "/")
	}
	var doc struct {
		Widgets []struct {
			Type       string          `json:"type"`
			Properties json.RawMessage `json:"properties"`
		} `json:"widgets"`
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		return nil, badDashboard("The field DashboardBody must be a valid JSON object: "+err.Error()+".", "/")
	}
	if doc.Widgets == nil {
		return nil, badDashboard("The dashboard body must have the array widgets.", "/widgets")
	}
	if len(doc.Widgets) > maxWidgets {
		return nil, badDashboard(fmt.Sprintf("A dashboard must not have more than %d widgets.", maxWidgets), "/widgets")
	}
	for i, w := range doc.Widgets {
		path := fmt.Sprintf("/widgets/%d", i)
		switch w.Type {
		case "metric", "text", "log", "alarm", "explorer", "custom":
		case "":
			return nil, badDashboard("A widget must have a type.", path+"/type")
		default:
			return nil, badDashboard("Unknown widget type "+w.Type+".", path+"/type")
		}
		if len(w.Properties) == 0 {
			out = append(out, api.DashboardValidationMessage{DataPath: new(path + "/properties"), Message: new("The widget has no properties.")})
		}
	}
	return out, nil
}

func (s *Service) getDashboard(ctx context.Context, in *api.GetDashboardInput) (*api.GetDashboardOutput, error) {
	account, _ := where(ctx)
	row, err := dashboards.Find(ctx, s.store, account, "", ptr.Value(in.DashboardName))
	if errors.Is(err, store.ErrNotFound) {
		return nil, noDashboard(ptr.Value(in.DashboardName))
	}
	if err != nil {
		return nil, err
	}
	return &api.GetDashboardOutput{DashboardArn: new(dashboardARN(account, row.ID)), DashboardBody: &row.Doc.Body, DashboardName: &row.Doc.Name}, nil
}

func noDashboard(name string) error {
	return awserr.New(api.ErrCodeDashboardNotFoundError, "Dashboard %s does not exist", name)
}

const dashboardPage = 300

func (s *Service) listDashboards(ctx context.Context, in *api.ListDashboardsInput) (*api.ListDashboardsOutput, error) {
	after, err := pageStart(in.NextToken)
	if err != nil {
		return nil, err
	}
	account, _ := where(ctx)
	rows, err := dashboards.Select(ctx, s.store, store.Query{Account: account, Prefix: ptr.Value(in.DashboardNamePrefix), After: after, Limit: dashboardPage + 1})
	if err != nil {
		return nil, err
	}
	out := &api.ListDashboardsOutput{DashboardEntries: []api.DashboardEntry{}}
	for i, row := range rows {
		if i == dashboardPage {
			out.NextToken = pageToken(rows[i-1].ID)
			break
		}
		out.DashboardEntries = append(out.DashboardEntries, api.DashboardEntry{
			DashboardName: &row.Doc.Name, DashboardArn: new(dashboardARN(account, row.ID)), LastModified: &row.Doc.Modified, Size: new(int64(len(row.Doc.Body))),
		})
	}
	return out, nil
}

// deleteDashboards deletes all or none.
func (s *Service) deleteDashboards(ctx context.Context, in *api.DeleteDashboardsInput) (*api.DeleteDashboardsOutput, error) {
	account, _ := where(ctx)
	return nil, s.store.Update(ctx, func(tx store.Tx) error {
		var gone []string
		for _, name := range in.DashboardNames {
			row, err := dashboards.Get(tx, account, "", name)
			if errors.Is(err, store.ErrNotFound) {
				gone = append(gone, name)
				continue
			}
			if err != nil {
				return err
			}
			if err := dashboards.Delete(tx, row, "Deleted", nil); err != nil {
				return err
			}
		}
		if len(gone) > 0 {
			return noDashboard(strings.Join(gone, ", "))
		}
		return nil
	})
}
