variable "name" {
  description = "Name of the queue, the roles and the service."
  type        = string
  default     = "entitlement-sync"
}

variable "region" {
  description = "Region of the queue and the service."
  type        = string
}

variable "image" {
  description = "The image with its tag, for example registry.example.com/entitlement-sync:0.1.0."
  type        = string
}

variable "sender_arns" {
  description = "Who may send to the queue: the principals of the source of the events."
  type        = list(string)
}

variable "secret_arn" {
  description = "Secret of Secrets Manager with the JSON keys SERVER_API_KEY and REDIS_PASSWORD."
  type        = string
}

variable "redis_host" {
  description = "Host of the Redis primary."
  type        = string
}

variable "cluster" {
  description = "ECS cluster in which the service runs."
  type        = string
}

variable "subnets" {
  description = "Subnets from which SQS, Redis and the Edge API can be reached."
  type        = list(string)
}

variable "security_groups" {
  description = "Security groups of the tasks; Redis must let them in."
  type        = list(string)
}
