package autoscaling

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"slipway/internal/store"
)

// The tables of this service.
var (
	groups = store.NewTable[Group]("autoscaling:group", func(g *Group) (string, string) {
		if g.Deleting {
			return "", "Delete in progress"
		}
		return "", ""
	})
	instances = store.NewTable[Instance]("autoscaling:instance", (*Instance).index)
	intents   = store.NewTable[intent]("autoscaling:launch", func(i *intent) (string, string) { return i.Group, "" })
	// hooks have ids "group/hook".
	hooks = store.NewTable[hook]("autoscaling:hook", func(h *hook) (string, string) { return h.Group, h.Transition })
	// activities have ids that grow with time (UUID version 7).
	activities = store.NewTable[activity]("autoscaling:activity", func(a *activity) (string, string) { return a.Group, a.Status })
)

const (
	statusInProgress = "InProgress"
	statusPre        = "PreInService"
	statusHook       = "MidLifecycleAction"
	statusDraining   = "WaitingForELBConnectionDraining"
	statusSuccessful = "Successful"
	statusFailed     = "Failed"
	statusCancelled  = "Cancelled"
)

// maxCause is the longest cause that AWS shows, in characters.
const maxCause = 1023

// newActivity writes the beginning of an activity.
func newActivity(tx store.Tx, g *store.Row[Group], now time.Time, a activity) (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	a.ID, a.Group, a.GroupARN, a.Start = id.String(), g.Doc.Name, g.Doc.ARN, now
	if len(a.Cause) > maxCause {
		a.Cause = a.Cause[:maxCause]
	}
	if a.Status == "" {
		a.Status = statusInProgress
	}
	_, err = activities.Insert(tx, g.Account, g.Region, a.ID, a, "Started", nil)
	return a.ID, err
}

// progress moves an activity on; an ended or unknown one stays as it is.
func progress(tx store.Tx, account, region, id, status string, percent int64, now time.Time, message string) error {
	if id == "" {
		return nil
	}
	row, err := activities.Get(tx, account, region, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if ended(row.Doc.Status) {
		return nil
	}
	row.Doc.Status, row.Doc.Progress = status, percent
	if message != "" {
		row.Doc.Message = message
	}
	event := "Progressed"
	if ended(status) {
		row.Doc.End, row.Doc.Progress, event = now, 100, status
	}
	return activities.Save(tx, row, event, nil)
}

// addCause appends a sentence to an activity's cause.
func addCause(tx store.Tx, account, region, id, sentence string) error {
	row, err := activities.Get(tx, account, region, id)
	if err != nil {
		return err
	}
	if text := row.Doc.Cause + "  " + sentence; len(text) <= maxCause {
		row.Doc.Cause = text
		return activities.Save(tx, row, "Progressed", nil)
	}
	return nil
}

func ended(status string) bool {
	return status == statusSuccessful || status == statusFailed || status == statusCancelled
}

// details is the JSON of an activity's Details.
func details(p place, alarms []InvokingAlarm) string {
	d := struct {
		Subnet string          `json:"Subnet ID,omitempty"`
		Zone   string          `json:"Availability Zone"`
		Alarms []InvokingAlarm `json:"InvokingAlarms,omitempty"`
	}{p.Subnet, p.Zone, alarms}
	raw, _ := json.Marshal(d) // strings and numbers always marshal
	return string(raw)
}

// at begins a cause sentence as AWS does.
func at(now time.Time, sentence string) string {
	return "At " + now.UTC().Format("2006-01-02T15:04:05Z") + " " + sentence
}

func sentences(parts ...string) string {
	var keep []string
	for _, p := range parts {
		if p != "" {
			keep = append(keep, p)
		}
	}
	return strings.Join(keep, "  ")
}
