package cloudwatch

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/store"
)

// change is a new state of an alarm.
type change struct {
	state, reason, data string
	value               *float64 // the newest data point
	// quiet: nobody is told (a composite alarm's suppressor keeps it back).
	quiet bool
}

// awsTime is how CloudWatch writes times into JSON.
const awsTime = "2006-01-02T15:04:05.000-0700"

// transition moves an alarm to another state: its row, its history and its
// actions become durable together.
func (s *Service) transition(tx store.Tx, row *store.Row[Alarm], c change) error {
	now := s.clock.Now()
	a := &row.Doc
	old := *a
	a.State, a.Reason, a.ReasonData = c.state, c.reason, c.data
	a.Updated, a.Transitioned = now, now
	if err := alarms.Save(tx, row, eventState, map[string]string{"From": old.State, "To": a.State}); err != nil {
		return err
	}
	if err := s.writeHistory(tx, row.Account, row.Region, stateUpdate(&old, a)); err != nil {
		return err
	}
	if c.quiet {
		return nil
	}
	return s.enqueue(tx, row, old.State, c.value)
}

// enqueue writes the actions of the alarm's state into the outbox.
func (s *Service) enqueue(tx store.Tx, row *store.Row[Alarm], from string, value *float64) error {
	a := &row.Doc
	for _, target := range a.actionsFor(a.State) {
		if a.Muted {
			h := history{Alarm: a.Name, AlarmType: alarmType(a), At: a.Transitioned, Type: api.HistoryItemTypeAction,
				Summary: "Action execution is disabled: " + target, Data: actionData(target, a.State, "Disabled", "")}
			if err := s.writeHistory(tx, row.Account, row.Region, h); err != nil {
				return err
			}
			continue
		}
		act := action{Target: target, Old: from, New: a.State, At: a.Transitioned, Alarm: *a, Value: value}
		if err := s.insertAction(tx, row.Account, row.Region, act); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) insertAction(tx store.Tx, account, region string, act action) error {
	_, err := actions.Insert(tx, account, region, s.newID(), act, "Due", nil)
	return err
}

// newID ascends with the clock's time.
func (s *Service) newID() string {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return fmt.Sprintf("%019d-%s", s.clock.Now().UnixNano(), hex.EncodeToString(b[:]))
}

func (s *Service) writeHistory(tx store.Tx, account, region string, h history) error {
	_, err := histories.Insert(tx, account, region, s.newID(), h, "Written", nil)
	return err
}

// configured is the history of a created, updated or deleted alarm.
func configured(a *Alarm, what string, now time.Time) history {
	types := map[string]string{"created": "Create", "updated": "Update", "deleted": "Delete"}
	data := map[string]any{"version": "1.0", "type": types[what]}
	key := map[string]string{"created": "createdAlarm", "updated": "updatedAlarm", "deleted": "deletedAlarm"}[what]
	if a.composite() {
		data[key] = a.compositeAlarm()
	} else {
		data[key] = a.metricAlarm()
	}
	b, _ := json.Marshal(data) // plain data: cannot fail
	return history{Alarm: a.Name, AlarmType: alarmType(a), At: now, Type: api.HistoryItemTypeConfigurationUpdate, Summary: fmt.Sprintf("Alarm %q %s", a.Name, what), Data: string(b)}
}

type historyState struct {
	StateValue      string          `json:"stateValue"`
	StateReason     string          `json:"stateReason"`
	StateReasonData json.RawMessage `json:"stateReasonData,omitempty"`
}

func stateOf(a *Alarm) historyState {
	h := historyState{StateValue: a.State, StateReason: a.Reason}
	if validJSON(a.ReasonData) {
		h.StateReasonData = json.RawMessage(a.ReasonData)
	}
	return h
}

func stateUpdate(old, now *Alarm) history {
	b, _ := json.Marshal(struct {
		Version  string       `json:"version"`
		OldState historyState `json:"oldState"`
		NewState historyState `json:"newState"`
	}{"1.0", stateOf(old), stateOf(now)}) // plain data: cannot fail
	return history{Alarm: now.Name, AlarmType: alarmType(now), At: now.Transitioned, Type: api.HistoryItemTypeStateUpdate,
		Summary: fmt.Sprintf("Alarm updated from %s to %s", old.State, now.State), Data: string(b)}
}

// actionData is the HistoryData of an action.
func actionData(target, state, result, failure string) string {
	b, _ := json.Marshal(struct {
		ActionState          string  `json:"actionState"`
		StateUpdateTimestamp *int64  `json:"stateUpdateTimestamp,omitempty"`
		NotificationResource string  `json:"notificationResource"`
		StateValue           string  `json:"stateValue"`
		Error                *string `json:"error,omitempty"`
	}{ActionState: result, NotificationResource: target, StateValue: state, Error: orNil(failure)}) // plain data: cannot fail
	return string(b)
}

func validJSON(s string) bool { return s != "" && json.Valid([]byte(s)) }

// shortened cuts a text to n bytes without cutting a character.
func shortened(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
