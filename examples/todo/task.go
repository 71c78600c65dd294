package main

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxTitle is the longest title, in characters (not bytes).
const MaxTitle = 200

// Task is one entry of the list, as the database keeps it and as the API shows it.
type Task struct {
	ID        int64     `json:"id"`
	Title     string    `json:"title"`
	Done      bool      `json:"done"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Change names what an update sets; nil leaves a field as it is.
type Change struct {
	Title *string
	Done  *bool
}

// Counts are the sizes of the whole list, whatever part of it is shown.
type Counts struct {
	Open int64 `json:"open"`
	Done int64 `json:"done"`
}

// All is the number of tasks, open and done.
func (c Counts) All() int64 { return c.Open + c.Done }

// Filter selects tasks by state.
type Filter string

const (
	FilterAll  Filter = "all"
	FilterOpen Filter = "open"
	FilterDone Filter = "done"
)

// ParseFilter accepts the three filters; nothing means all of them.
func ParseFilter(s string) (Filter, error) {
	switch f := Filter(s); f {
	case "":
		return FilterAll, nil
	case FilterAll, FilterOpen, FilterDone:
		return f, nil
	}
	return "", invalid("status", "status must be all, open or done, not %q", s)
}

// FieldError says which field of a request is wrong, in words for a person.
type FieldError struct {
	Field   string
	Message string
}

func (e *FieldError) Error() string { return e.Message }

func invalid(field, format string, args ...any) error {
	return &FieldError{Field: field, Message: fmt.Sprintf(format, args...)}
}

// CleanTitle trims a title and checks it: 1 to MaxTitle characters on one line.
func CleanTitle(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", invalid("title", "title is not valid UTF-8")
	}
	s = strings.TrimSpace(s)
	if s == "" {
		return "", invalid("title", "title must not be empty")
	}
	if n := utf8.RuneCountInString(s); n > MaxTitle {
		return "", invalid("title", "title has %d characters; at most %d are allowed", n, MaxTitle)
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return "", invalid("title", "title must be one line without control characters")
		}
	}
	return s, nil
}
